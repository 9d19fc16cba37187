"""Messages that cross a border and their order, the private sum, exact noise, task kinds."""
