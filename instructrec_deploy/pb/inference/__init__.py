"""pb/inference"""
