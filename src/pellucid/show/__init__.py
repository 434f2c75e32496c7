"""Pictures and reports: what may be shown, how it is drawn, and the words that go with it."""
