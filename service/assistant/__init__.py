"""Who answers in plan mode, and the answers under way."""
