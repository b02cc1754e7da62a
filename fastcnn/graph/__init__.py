"""From a forward function to a plan: trace, backward, passes, lower, memory, plan."""
