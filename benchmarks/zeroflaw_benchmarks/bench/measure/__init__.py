"""What `zeroflaw bench` measures, one module for each section of its report."""
