"""`python -m tests.servers fetch` fetches the servers' programs; `... check` says what is missing."""

import sys

from tests.servers.fetch import cache, fetch, missing

if __name__ == "__main__":
    if sys.argv[1:] == ["fetch"]:
        fetch()
        print(f"servers are in {cache()}")
    elif sys.argv[1:] == ["check"]:
        print(missing() or f"servers are in {cache()}")
        sys.exit(bool(missing()))
    else:
        sys.exit(f"usage: {__doc__}")
