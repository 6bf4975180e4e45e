"""`python -m lavibridge ...` is `lavi ...`, for launchers that take a module.

accelerate launch -m lavibridge train RECIPE
"""

from lavibridge.cli.main import main

if __name__ == "__main__":
    main()
