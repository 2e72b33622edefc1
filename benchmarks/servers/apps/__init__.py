"""What the peers serve, each as its own documentation shows a batched classifier. Run in their environments: danlu is not there."""
