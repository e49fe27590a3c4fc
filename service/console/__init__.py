"""What operators see of a running process: projects, tiers, streams, legs. Reads only."""
