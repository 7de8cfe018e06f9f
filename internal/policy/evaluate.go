package policy

// Evaluate decides.
func Evaluate(t *Terms, f Facts) Decision { return Decision{} }
