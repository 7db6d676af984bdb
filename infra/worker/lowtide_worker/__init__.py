"""The worker of Lowtide's backend `spot`: an inference engine's orders, on a machine that may be taken away."""
