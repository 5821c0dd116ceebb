"""What people ask of the rules: what one does, what a change changes, where a value is wrong, and
whether the rules judge test cases as they should. Changes nothing.
"""
