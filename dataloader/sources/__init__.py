"""Where images lie: digits, folders, tensorflow-datasets."""
