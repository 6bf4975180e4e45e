"""`python -m lavibridge ...` is `lavi ...`, for launchers that take a module.

accelerate launch -m lavibridge train RECIPE
"""

from lavibridge.cli.main import run

if __name__ == "__main__":
    run()
