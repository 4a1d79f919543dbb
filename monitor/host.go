package monitor

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Token is one row of tokens: what lets a machine join. Its secret is not among
// it.
type Token struct {
	ID            uint64
	Made, Expires time.Time
	By            string // who made it
	Uses          int    // 0 or 1
	Server        string // host name that it lets in; empty: any
	Address       string // address that it lets in; empty: any
	Replaces      uint64 // server whose place it gives; 0: it makes a new one
	Used          time.Time
	UsedBy, From  string // name and address of the machine that it has let in
}

// TokenWish is what createtoken is asked for.
type TokenWish struct {
	TTL             time.Duration // 0: as usual
	Server, Address string        // empty: any
}

// NewToken is a token that was just made, with its text, which nobody is told
// again.
type NewToken struct {
	Token
	Secret string
}

// Revoked is one row of revocations: an identity that is of the cluster no more.
type Revoked struct {
	ID, Serial string
	Server     uint64 // that it was
	Name       string
	Why        string
	At, Until  time.Time
}

// HostAdmin is what the commands about registering and replacing hosts need.
type HostAdmin interface {
	// SetManagerPassword takes a password of 8 to 128 characters; an *Error with
	// code 553 for another one.
	SetManagerPassword(ctx context.Context, password string) error
	// Tokens returns those whose life is not over, by ID.
	Tokens() []Token
	// CreateToken makes a token for a new server. Errors are 551 where a server
	// has the name, 553 for a value that cannot be, 554 where nobody can join.
	CreateToken(ctx context.Context, w TokenWish) (NewToken, error)
	DeleteToken(ctx context.Context, id uint64) error
	// ReplaceServer revokes the identity of a server and makes a token that
	// gives its place to another machine; an *Error with code 554 while it is
	// connected, unless force is set.
	ReplaceServer(ctx context.Context, id uint64, ttl time.Duration, force bool) (NewToken, error)
	// Revocations returns all that are known, the oldest first, and, where the
	// database was restored from a copy, from when on some may be missing.
	Revocations() (list []Revoked, unknownSince time.Time)
}

// hostCommands are those about registering and replacing hosts.
func hostCommands(b Backend) []Entry {
	ttl := Arg{Name: "ttl", Kind: Option, Type: TypeTime, Hint: "TIME", Optional: true, Help: "how long it is good, one hour otherwise"}
	return []Entry{{
		Name: "managerpassword", Group: registration, Level: Admin,
		Summary: "set the password with which hosts are registered",
		About: []string{"Asks for the manager's password, which whoever registers a host is asked for there. It has",
			"8 to 128 characters. There is none until it is set here. An empty line changes nothing."},
		Example: "managerpassword",
		See:     []string{"createtoken"},
		Hide:    func(map[string]string) bool { return true }, // some will write it behind the command
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return managerPassword(ctx, c, b) },
	}, {
		Name: "tokens", Group: registration,
		Summary: "list the tokens that let hosts join",
		About:   []string{"Lists the tokens whose time is not over, also used ones. Their secrets are shown nowhere."},
		Example: "tokens",
		See:     []string{"createtoken", "deletetoken"},
		Run:     func(_ context.Context, _ *Call) (Reply, error) { return listTokens(b), nil },
	}, {
		Name: "createtoken", Group: registration, Level: Admin,
		Args: []Arg{ttl,
			{Name: "server", Kind: Option, Hint: "NAME", Optional: true, Help: "the host name of the only machine that it lets in"},
			{Name: "address", Kind: Option, Hint: "ADDR", Optional: true, Help: "the address of the only machine that it lets in, as its WIN4_VERDE_PUBADDR says"}},
		Summary: "make a token that lets one host join",
		About: []string{`Makes a token for "verdecmd register --token-file" on the new host. It works once, and is`,
			"shown only now. A new one for the same name takes the place of the one before."},
		Example: "createtoken server=sat3.example.com ttl=30m",
		See:     []string{"tokens", "deletetoken", "replaceserver"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			t, err := b.CreateToken(ctx, TokenWish{TTL: c.Time("ttl"), Server: c.Args["server"], Address: c.Args["address"]})
			if err != nil {
				return Reply{}, err
			}
			return newToken(t), nil
		},
	}, {
		Name: "deletetoken", Group: registration, Level: Admin, Full: true,
		Args:    []Arg{{Name: "id", Type: TypeNumber, Hint: "ID", Help: `the number shown by "tokens"`, Complete: func(string) []Choice { return tokenChoices(b) }}},
		Summary: "delete a token",
		About:   []string{"No host can join with that token any more. One that has joined with it stays."},
		Example: "deletetoken 3",
		See:     []string{"tokens"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			id := c.ID("id")
			if err := b.DeleteToken(ctx, id); err != nil {
				return Reply{}, err
			}
			return Reply{Code: 200, Pairs: []Pair{{"id", id}}, Text: fmt.Sprintf("Token %d is deleted.", id)}, nil
		},
	}, {
		Name: "replaceserver", Group: registration, Level: Admin, Full: true,
		Args: []Arg{{Name: "server", Type: TypeServer, Hint: "SERVER-ID", Help: `the number shown by "servers"`, Complete: func(string) []Choice { return serverChoices(b) }},
			ttl, {Name: "force", Kind: Flag, Help: "also while it is connected: it is shut out at once"}},
		Summary: "let a new machine take the place of a server",
		About: []string{"A new machine with the same name and address may take over this ID, once, with the token",
			"that is shown. The old machine is shut out for ever, also if that never happens. While the",
			"server holds sessions nobody can take its place: see fenceserver."},
		Example: "replaceserver 3",
		See:     []string{"fenceserver", "forgetserver", "createtoken"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			s, _, ok := b.Server(c.ID("server"))
			if !ok {
				return Reply{}, noServer(c, b)
			}
			t, err := b.ReplaceServer(ctx, s.ID, c.Time("ttl"), c.Has("force"))
			if err != nil {
				return Reply{}, err
			}
			r := newToken(t)
			if s.Users > 0 {
				r.Pairs = append(r.Pairs, Pair{"sessions", s.Users})
				r.Text += fmt.Sprintf(" It holds %s: \"fenceserver %d\" first, when it is powered off.", count(s.Users, "session"), s.ID)
			}
			return r, nil
		},
	}, {
		Name: "revocations", Group: registration,
		Summary: "list the identities that are shut out",
		About: []string{"Lists the identities of machines that were replaced or forgotten, until no certificate of",
			"theirs can be valid any more. After the database was restored from a copy it also tells",
			"since when some may be missing."},
		Example: "revocations",
		See:     []string{"forgetserver", "replaceserver"},
		Run:     func(_ context.Context, _ *Call) (Reply, error) { return listRevocations(b), nil },
	}}
}

func managerPassword(ctx context.Context, c *Call, b HostAdmin) (Reply, error) {
	password, err := c.Secret("The manager's password, 8 to 128 characters; an empty line changes nothing.")
	if err != nil {
		return Reply{}, err
	}
	if password == "" {
		return Reply{Code: 204, Text: "The manager's password is as it was."}, nil
	}
	if err := b.SetManagerPassword(ctx, password); err != nil {
		return Reply{}, err
	}
	return Reply{Code: 200, Text: `The manager's password is set. Hosts are registered with it by "verdecmd register" there.`}, nil
}

// newToken shows a token, the only time.
func newToken(t NewToken) Reply {
	pairs := []Pair{{"id", t.ID}, {"token", t.Secret}, {"expires", t.Expires}}
	who := "one host"
	if t.Server != "" {
		pairs = append(pairs, Pair{"server", t.Server})
		who = t.Server
	}
	if t.Address != "" {
		pairs = append(pairs, Pair{"address", t.Address})
		who += " with the address " + t.Address
	}
	if t.Replaces != 0 {
		pairs = append(pairs, Pair{"replaces", t.Replaces})
		who += fmt.Sprintf(", as server %d,", t.Replaces)
	}
	return Reply{Code: 201, Pairs: pairs, Text: fmt.Sprintf("Token %d lets in %s once, until %s, and is not shown again: %s", t.ID, who, t.Expires.Local().Format(time.DateTime), t.Secret)}
}

func tokenChoices(b HostAdmin) (out []Choice) {
	for _, t := range b.Tokens() {
		out = append(out, Choice{strconv.FormatUint(t.ID, 10), t.Server})
	}
	return out
}

func listTokens(b HostAdmin) Reply {
	list := b.Tokens()
	text := count(len(list), "token") + "."
	if len(list) == 0 {
		text = `There is no token; "createtoken" makes one.`
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}}, Text: text,
		List: &List{
			Columns: []Column{{"id", "ID", Number}, {"made", "MADE", Stamp}, {"by", "BY", Plain}, {"expires", "EXPIRES", Stamp}, {"uses", "USES", Number},
				{"server", "SERVER", Plain}, {"address", "ADDRESS", Plain}, {"replaces", "REPLACES", Number}, {"used", "USED", Stamp}, {"usedby", "USED BY", Plain}, {"from", "FROM", Plain}},
			Len: len(list),
			Row: func(i int, r *Row) {
				t := &list[i]
				r.Uint(t.ID)
				r.Time(t.Made)
				r.String(t.By)
				r.Time(t.Expires)
				r.Int(int64(t.Uses))
				r.String(t.Server)
				r.String(t.Address)
				if t.Replaces == 0 {
					r.Nil()
				} else {
					r.Uint(t.Replaces)
				}
				r.Time(t.Used)
				r.String(t.UsedBy)
				r.String(t.From)
			},
		},
	}
}

func listRevocations(b HostAdmin) Reply {
	list, unknown := b.Revocations()
	pairs := []Pair{{"count", len(list)}}
	text := count(len(list), "revocation") + "."
	if !unknown.IsZero() {
		pairs = append(pairs, Pair{"unknownsince", unknown})
		text += fmt.Sprintf(" The database was restored from a copy of %s: who was shut out after that is not known. Look whether each of \"servers\" is what it should be, and replace or forget the others.", unknown.Local().Format(time.DateTime))
	}
	return Reply{
		Code: 210, Pairs: pairs, Text: text,
		List: &List{
			Columns: []Column{{"id", "IDENTITY", Plain}, {"serial", "SERIAL", Plain}, {"server", "SERVER", Number}, {"name", "NAME", Plain}, {"why", "WHY", Plain}, {"at", "AT", Stamp}, {"until", "KEPT UNTIL", Stamp}},
			Len:     len(list),
			Row: func(i int, r *Row) {
				v := &list[i]
				r.String(v.ID)
				r.String(v.Serial)
				r.Uint(v.Server)
				r.String(v.Name)
				r.String(v.Why)
				r.Time(v.At)
				r.Time(v.Until)
			},
		},
	}
}
