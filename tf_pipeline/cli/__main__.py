"""``python -m tf_pipeline.cli``: the command line where it is not installed as a program."""

from tf_pipeline.cli.main import main

if __name__ == "__main__":
    main()
