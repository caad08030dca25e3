"""Looking at a run while it goes on: a page in the browser, served by the run itself, or by ``fetcher watch`` for a job."""
