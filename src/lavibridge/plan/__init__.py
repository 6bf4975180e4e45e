"""What a run will take, before anything is downloaded or spent: memory, arithmetic, time, disk."""
