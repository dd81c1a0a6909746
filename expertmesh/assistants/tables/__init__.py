"""What is in a file of data? Its rows and columns, in bounded time and memory."""
