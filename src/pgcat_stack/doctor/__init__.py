"""`pgcat-stack doctor`: a deployment's files against its living parts.

    facts.py          what the files let one expect, with the places that say so
    reach.py          how each address is reached from here; platforms.py: by docker and kubectl
    credentials.py    passwords from the environment, secret files, the cluster's Secrets
    postgres.py pgcat.py exporter.py permify.py write_check.py    what is asked, and the typed answers
    asking.py         puts every question, so that one that goes wrong costs no other
    session.py        asks everybody side by side, each within its time
    checks/           pure functions from facts and answers to problems, registered with their codes
    verdict.py        the errors of the files first, and what they explain not again
    display.py        progress while it works, the report

Only the command imports this package: the hook has no psycopg.
"""
