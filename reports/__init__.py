"""Pages and pictures of a run, made of what report.json holds: they read `runs` alone, and no TensorFlow."""
