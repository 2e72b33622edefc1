"""Layers that forecasting models share."""
