"""Everything known of hosts, and every decision about them. No await, no socket; the clock is a parameter."""
