package address

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"verdecmd/settings"
)

// office is a computer with three networks, as V-13 wants it: clients on eth0,
// the cluster on eth1, storage on br0; eth2 has no address yet.
type office struct{}

func (office) Interfaces() ([]Interface, error) {
	return []Interface{
		{"br0", []Own{global("192.0.2.130/26")}},
		{"eth0", []Own{global("2001:db8::9/64"), global("2001:db8::2/64"), global("198.51.100.7/24"), global("198.51.100.8/24")}},
		{"eth1", []Own{global("10.1.0.7/24")}},
		{"eth2", []Own{{IP: netip.MustParseAddr("fe80::1"), Bits: 64}}},
		{"lo", []Own{{IP: loopback, Bits: 8}, {IP: netip.IPv6Loopback(), Bits: 128}}},
	}, nil
}

func global(prefix string) Own {
	p := netip.MustParsePrefix(prefix)
	return Own{IP: p.Addr(), Bits: p.Bits(), Global: true}
}

func (office) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	names := map[string]string{
		"master": "10.1.0.1", "here": "2001:db8::2 10.1.0.7", "elsewhere": "10.1.0.9", "unrouted": "203.0.113.1",
		"localhost": "::1 127.0.0.1", "eth0": "10.1.0.9",
	}
	if name == "slow" {
		return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
	}
	var out []netip.Addr
	for ip := range strings.FieldsSeq(names[name]) {
		out = append(out, netip.MustParseAddr(ip))
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return out, nil
}

func (office) Source(_ context.Context, to netip.Addr) (netip.Addr, error) {
	switch {
	case to.IsLoopback():
		return loopback, nil
	case netip.MustParsePrefix("10.1.0.0/24").Contains(to):
		return netip.MustParseAddr("10.1.0.7"), nil
	}
	return netip.Addr{}, errors.New("network is unreachable")
}

func finder(t *testing.T, text string) Finder {
	t.Helper()
	v, err := settings.Parse("settings.global", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return Finder{v, office{}}
}

// wrong checks an error; it returns whether there was to be one.
func wrong(t *testing.T, err error, want string) bool {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Fatalf("got error %v, want %q", err, want)
	}
	return want != ""
}

// V-13: the address that an interface stands for.
func TestFirst(t *testing.T) {
	passing := func(prefix string) Own { o := global(prefix); o.Passing = true; return o }
	tests := map[string]struct {
		own  []Own
		want string
	}{
		"none":                             {nil, ""},
		"only its own link's":              {[]Own{{IP: netip.MustParseAddr("fe80::1"), Bits: 64}}, ""},
		"IPv4 before IPv6":                 {[]Own{global("2001:db8::1/64"), global("10.0.0.9/8")}, "10.0.0.9"},
		"IPv4 in the kernel's order":       {[]Own{global("10.0.0.9/8"), global("10.0.0.2/8")}, "10.0.0.9"},
		"a virtual address last":           {[]Own{global("10.0.0.9/32"), global("10.0.0.2/8")}, "10.0.0.2"},
		"a host's address where it is all": {[]Own{global("10.0.0.9/32")}, "10.0.0.9"},
		"IPv6 by number":                   {[]Own{global("2001:db8::9/64"), global("2001:db8::2/64")}, "2001:db8::2"},
		"IPv6 that lasts":                  {[]Own{passing("2001:db8::2/64"), global("2001:db8::9/64")}, "2001:db8::9"},
		"passing before nothing":           {[]Own{passing("2001:db8::2/64")}, "2001:db8::2"},
	}
	for name, tt := range tests {
		ip, ok := Interface{"eth0", tt.own}.First()
		if got := ip.String(); ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%s: got %v, want %s", name, ip, tt.want)
		}
	}
}

// V-13, V-14: where the master listens, never on all networks by itself.
func TestMaster(t *testing.T) {
	tests := map[string]struct{ text, want, remark, err string }{
		"IP address":            {text: "WIN4_VERDE_LISTEN=10.9.9.9", want: "10.9.9.9:8442"}, // the kernel knows better
		"with port":             {text: "WIN4_VERDE_LISTEN=10.9.9.9:1", want: "10.9.9.9:1"},
		"interface":             {text: "WIN4_VERDE_LISTEN=eth1", want: "10.1.0.7:8442"},
		"interface before name": {text: "WIN4_VERDE_LISTEN=eth0:99", want: "198.51.100.7:99"},
		"name":                  {text: "WIN4_VERDE_LISTEN=here", want: "10.1.0.7:8442"},
		"localhost":             {text: "WIN4_VERDE_LISTEN=localhost", want: "127.0.0.1:8442"},
		"everywhere":            {text: "WIN4_VERDE_LISTEN=0.0.0.0", want: "0.0.0.0:8442", remark: "WIN4_VERDE_LISTEN (settings.global:1) is 0.0.0.0: the port is open on all networks"},
		"everywhere, IPv6":      {text: "WIN4_VERDE_LISTEN=[::]:5", want: "[::]:5", remark: "is ::: the port is open"},
		"another computer":      {text: "WIN4_VERDE_LISTEN=elsewhere", err: `WIN4_VERDE_LISTEN (settings.global:1) is "elsewhere": the name stands for 10.1.0.9, which is no address of this computer (br0 192.0.2.130, eth0 198.51.100.7, eth1 10.1.0.7, eth2 without a global address`},
		"no such interface":     {text: "\nWIN4_VERDE_LISTEN=eth7", err: `WIN4_VERDE_LISTEN (settings.global:2) is "eth7": it is neither a network interface of this computer (br0 192.0.2.130, eth0`},
		"no address":            {text: "WIN4_VERDE_LISTEN=eth2", err: "the network interface has no address that other computers can reach"},
		"loopback":              {text: "WIN4_VERDE_LISTEN=lo", err: "the network interface has no address that other computers can reach"},
		"from CMADDR":           {text: "WIN4_VERDE_CMADDR=master,here:7", want: "[2001:db8::2]:7"}, // as the resolver orders them,
		"from CMADDR, IP":       {text: "WIN4_VERDE_CMADDR=192.0.2.130", want: "192.0.2.130:8442"},
		"CMADDR elsewhere":      {text: "WIN4_VERDE_CMADDR=master", want: "127.0.0.1:8442", remark: "neither WIN4_VERDE_LISTEN nor WIN4_VERDE_CMADDR names an address of this computer"},
		"CMADDR unknown":        {text: "WIN4_VERDE_CMADDR=nobody,here", want: "[2001:db8::2]:8442", remark: "WIN4_VERDE_CMADDR: the name nobody cannot be resolved"},
		"another loopback":      {text: "WIN4_VERDE_CMADDR=127.9.9.9", want: "127.0.0.1:8442", remark: "neither"},
		"nothing":               {want: "127.0.0.1:8442", remark: "neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, remarks, err := finder(t, tt.text).Master(t.Context())
			if wrong(t, err, tt.err) {
				return
			}
			if got != tt.want || !strings.Contains(strings.Join(remarks, "\n"), tt.remark) || tt.remark == "" && len(remarks) > 0 {
				t.Errorf("got %s, %q, want %s, %q", got, remarks, tt.want, tt.remark)
			}
		})
	}
}

func TestMasters(t *testing.T) {
	tests := map[string]struct{ text, want, err string }{
		"elsewhere":              {text: "WIN4_VERDE_CMADDR=eth1", want: "eth1:8442"}, // a name, whatever it is here
		"here":                   {text: "WIN4_VERDE_CLUSTER_MASTER=yes", want: "127.0.0.1:8442"},
		"here, an address":       {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=10.1.0.7", want: "10.1.0.7:8442"},
		"here, an interface":     {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=eth1:9", want: "10.1.0.7:9"},
		"here, a name":           {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=here", want: "here:8442"},
		"here, an interface, no": {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=eth2", err: "has no address"},
		"nowhere":                {err: "WIN4_VERDE_CMADDR is not set"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := finder(t, tt.text).Masters()
			if !wrong(t, err, tt.err) && !slices.Equal(got, []string{tt.want}) {
				t.Errorf("got %q, want %s", got, tt.want)
			}
		})
	}
}

func TestPublic(t *testing.T) {
	tests := map[string]struct{ text, want, remark, err string }{
		"nothing":             {want: "myself"},
		"IP address":          {text: "WIN4_VERDE_PUBADDR=203.0.113.9", want: "203.0.113.9"}, // behind a translated address
		"IP address and port": {text: "WIN4_VERDE_PUBADDR=203.0.113.9:443", want: "203.0.113.9:443"},
		"interface":           {text: "WIN4_VERDE_PUBADDR=eth0", want: "198.51.100.7"},
		"interface and port":  {text: "WIN4_VERDE_PUBADDR=eth0:443", want: "198.51.100.7:443"},
		"interface, none":     {text: "WIN4_VERDE_PUBADDR=eth2", err: `WIN4_VERDE_PUBADDR (settings.global:1) is "eth2"`},
		"name":                {text: "WIN4_VERDE_PUBADDR=here", want: "here"},
		"name for clients":    {text: "WIN4_VERDE_PUBADDR=sat1.example.com", want: "sat1.example.com"},
		"maybe a mistake":     {text: "WIN4_VERDE_PUBADDR=eth7", want: "eth7", remark: "neither a network interface of this computer (br0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, remarks, err := finder(t, tt.text).Public(t.Context(), "myself")
			if wrong(t, err, tt.err) {
				return
			}
			if got != tt.want || !strings.Contains(strings.Join(remarks, "\n"), tt.remark) || tt.remark == "" && len(remarks) > 0 {
				t.Errorf("got %s, %q, want %s, %q", got, remarks, tt.want, tt.remark)
			}
		})
	}
}

// V-13: satellites meet on the network of the cluster, and what is large may
// have a network of its own.
func TestPeers(t *testing.T) {
	const master = "WIN4_VERDE_CMADDR=master\n"
	tests := map[string]struct {
		text            string
		listen          string
		peer, migration string // empty: listen
		remark, err     string
		later           bool
	}{
		"towards the master":     {text: master, listen: "10.1.0.7:8444"},
		"master here":            {text: "WIN4_VERDE_CLUSTER_MASTER=yes", listen: "127.0.0.1:8444"},
		"master on an interface": {text: "WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_VERDE_LISTEN=eth1", listen: "10.1.0.7:8444"},
		"second master":          {text: "WIN4_VERDE_CMADDR=nobody,unrouted,master", listen: "10.1.0.7:8444"},
		"address":                {text: master + "WIN4_PEER_LISTEN=192.0.2.130:5", listen: "192.0.2.130:5"},
		"interface":              {text: master + "WIN4_PEER_LISTEN=br0", listen: "192.0.2.130:8444"},
		"everywhere":             {text: master + "WIN4_PEER_LISTEN=0.0.0.0:7", listen: "0.0.0.0:7", peer: "10.1.0.7:7", migration: "10.1.0.7:7", remark: "WIN4_PEER_LISTEN (settings.global:2) is 0.0.0.0: the port is open"},
		"migration apart":        {text: master + "WIN4_MIGRATION_ADDR=br0", listen: "10.1.0.7:8444 192.0.2.130:8444", peer: "10.1.0.7:8444", migration: "192.0.2.130:8444"},
		"migration, port apart":  {text: master + "WIN4_PEER_LISTEN=eth1\nWIN4_MIGRATION_ADDR=eth1:8002", listen: "10.1.0.7:8444 10.1.0.7:8002", peer: "10.1.0.7:8444", migration: "10.1.0.7:8002"},
		"the same twice":         {text: master + "WIN4_PEER_LISTEN=eth1\nWIN4_MIGRATION_ADDR=10.1.0.7", listen: "10.1.0.7:8444"},
		"interface missing":      {text: master + "WIN4_PEER_LISTEN=eth7", err: `WIN4_PEER_LISTEN (settings.global:2) is "eth7": it is neither`},
		"migration's missing":    {text: master + "WIN4_MIGRATION_ADDR=eth7", err: `WIN4_MIGRATION_ADDR (settings.global:2) is "eth7": it is neither`},
		"interface without":      {text: master + "WIN4_PEER_LISTEN=eth2", err: "has no address", later: true},
		"no name service":        {text: master + "WIN4_PEER_LISTEN=slow", err: "i/o timeout", later: true},
		"master unknown":         {text: "WIN4_VERDE_CMADDR=nobody", err: "unless WIN4_PEER_LISTEN says it: not known yet: the name nobody cannot be resolved", later: true},
		"no route":               {text: "WIN4_VERDE_CMADDR=unrouted", err: "network is unreachable", later: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := finder(t, tt.text).Peers(t.Context())
			if errors.Is(err, ErrNotYet) != tt.later {
				t.Errorf("got %v; may it be right later: want %v", err, tt.later)
			}
			if wrong(t, err, tt.err) {
				return
			}
			if tt.peer == "" {
				tt.peer, tt.migration = tt.listen, tt.listen
			}
			var listen, by []string
			for _, p := range got.Ports {
				listen, by = append(listen, p.Listen), append(by, p.Settings...)
			}
			want := []string{settings.PeerListen}
			if strings.Contains(tt.text, settings.MigrationAddr) { // also where both lead to one port
				want = append(want, settings.MigrationAddr)
			}
			if !slices.Equal(by, want) {
				t.Errorf("listens by %q, want %q", by, want)
			}
			if !slices.Equal(listen, strings.Fields(tt.listen)) || got.Peer != tt.peer || got.Migration != tt.migration ||
				!strings.Contains(strings.Join(got.Remarks, "\n"), tt.remark) || tt.remark == "" && len(got.Remarks) > 0 {
				t.Errorf("got %+v, want %+v", got, tt)
			}
		})
	}
}

// An error does not list a thousand desktops' interfaces.
func TestListIsShort(t *testing.T) {
	all := []Interface{{"a", nil}}
	for range 1000 {
		all = append(all, Interface{"tap", nil})
	}
	all = append(all, Interface{"eth0", []Own{global("10.0.0.1/8")}})
	if got := list(all); !strings.HasPrefix(got, "eth0 10.0.0.1, a without a global address, tap") || !strings.HasSuffix(got, "and 990 more") {
		t.Errorf("got %s", got)
	}
}
