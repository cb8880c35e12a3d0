"""What names of folders and files tell: birds, ages, times."""
