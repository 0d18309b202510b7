"""The built-in digits model: an EDM denoiser of scikit-learn's 8x8 handwritten digits, with its weights and its training script."""
