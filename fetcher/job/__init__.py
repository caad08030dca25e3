"""A job: a list that survives, its ledger, its lock and what must not change while it lasts.

Law 6: what was acknowledged is durable, what was not is redone. Law 7: a job's folder is read as the web is: nothing in
it is trusted, unpickled or run. Nothing is imported here; each module is taken by its own name.
"""
