"""What this node holds of everyone's signed documents, and what follows from them."""
