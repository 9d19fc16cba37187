"""What crosses a border and in which order: messages, the private sum, exact noise, rounding."""
