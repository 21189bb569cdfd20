"""What holds or pulls weights while they train: zeros, soft masks, sparse scales, ADMM."""
