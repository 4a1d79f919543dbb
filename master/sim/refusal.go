package sim

// refusalText is a refusal as the source writes it, with N for what varies.
type refusalText struct {
	text        string
	unreachable string // why no history can reach it; empty: one of many does
}

var refusals = []refusalText{}

// Template returns the refusal of which this text is an instance.
func Template(text string) string { return text }
