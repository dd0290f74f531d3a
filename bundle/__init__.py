"""The offline bundle: how it is built online, and how it is verified on either side."""
