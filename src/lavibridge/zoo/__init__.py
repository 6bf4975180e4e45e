"""How the shipped miniature models were made, and are made again: plain pretraining of the real classes."""
