"""`python -m qverify`: the command line."""

from qverify.cli import main

if __name__ == "__main__":
    main(prog_name="qverify")
