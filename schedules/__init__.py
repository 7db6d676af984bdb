"""What runs when: times of schedules, and the deployments that keep them."""
