"""`pgcat-stack doctor`: a deployment's files against its living parts.

    expected.py       what the files let one expect, with the places that say so
    routes.py         how each address is reached from here; platforms.py: by docker and kubectl
    credentials.py    passwords from the environment, secret files, the cluster's Secrets
    postgres.py pgcat.py exporter.py permify.py write_check.py    what is asked, and the typed answers
    side_by_side.py   puts every question, each within its time, so that one that goes wrong costs no other
    session.py        asks everybody
    case.py           everything that was answered, typed: with what was expected it is what checks judge
    checks/           pure functions from facts and answers to problems, registered with their codes
    verdict.py        the errors of the files first, and what they explain not again
    display.py        progress while it works, the report

Only the command imports this package: the hook has no psycopg.
"""
