"""What each answer shape is tuned for: loss, outputs, metrics, calibration."""
