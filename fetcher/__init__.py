"""fetcher: requests go in, exactly one outcome comes out of each."""
