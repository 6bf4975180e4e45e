"""What vision families are built of: opened cross-attention layers."""
