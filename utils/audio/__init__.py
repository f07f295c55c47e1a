"""Audio: which files hold it, what training hears of one, windows of long ones, and RawBoost."""
