package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

// The networks of TestRealNetworks: each computer's address in one ends in its
// number, and its interface has the network's name.
var lans = []struct{ nic, prefix string }{{"clu0", "10.77.0."}, {"pub0", "198.51.100."}, {"sto0", "10.78.0."}}

// V-13, V-14, issue item 6: computers with three networks. Each service listens on
// the address of its network alone; a client on the public one reaches the public
// address of each satellite and nothing else, also one who sends packets for the
// other networks to these computers; nobody listens on all interfaces; what the
// programs say to each other stays on the cluster's network.
func TestRealNetworks(t *testing.T) {
	t.Parallel()
	c := prepareChaos(t, plan{seed: 1}, 4)
	for _, n := range lans[1:] {
		c.ip("-n " + c.prefix + "sw link add br-" + n.nic + " type bridge")
		c.ip("-n " + c.prefix + "sw link set br-" + n.nic + " up")
	}
	for k, v := range map[string]string{"WIN4_VERDE_LISTEN": "clu0", "WIN4_VERDE_STATS_INTERVAL": "1"} {
		c.run(0, "verdecmd", "settings", "set", "--settings", c.path("m"), k, v)
	}
	c.m = c.computer(&daemon{r: c.real, name: "master", settings: c.path("m")}, "m", 1, lans[0].nic, lans[1].nic)
	tap := newWiretap(t)
	tap.in(c.m.space)
	c.m.start()
	c.until("the master's socket", c.ready)
	for n := 1; n <= 2; n++ {
		d := c.configure(n, values{"WIN4_VERDE_CMADDR": "10.77.0.1", "WIN4_VERDE_PUBADDR": "pub0", "WIN4_PEER_LISTEN": "clu0", "WIN4_MIGRATION_ADDR": "sto0"}, "")
		c.sats = append(c.sats, c.computer(d, d.name, 10+n, lans[0].nic, lans[1].nic, lans[2].nic))
		tap.in(d.space)
		d.start()
		c.until("a satellite", func() bool { return c.up(n) })
	}
	client := c.computer(&daemon{r: c.real}, "client", 100, lans[1].nic).space

	// The login: where it is referred to, the client gets.
	c.admin("offlineserver", "1")
	out := c.win4(3, 1, "u1")
	if !strings.Contains(out, "referred 2 sat2") || !strings.Contains(out, "198.51.100.12") {
		t.Errorf("a login is referred: %s", out)
	}
	for n := 1; n <= 2; n++ {
		if got, want := c.value("address", "server", fmt.Sprint(n)), fmt.Sprintf("198.51.100.%d", 10+n); got != want {
			t.Errorf("the address of server %d is %s, want %s", n, got, want)
		}
	}
	links := 0
	for where := range tap.stop() {
		if strings.HasPrefix(where, "the connection") && strings.Count(where, " 10.77.0.") != 2 {
			t.Errorf("beside the cluster's network: %s", where)
		}
		if strings.HasSuffix(where, " to 10.77.0.1:8442") {
			links++
		}
	}
	if links < 2 {
		t.Errorf("%d connections to the master passed", links)
	}
	l, err := within(c.sats[1].space, func() (net.Listener, error) { return net.Listen("tcp4", "198.51.100.12:8443") })
	check(t, err) // in the place of what clients will talk to
	if err := tries(client, "198.51.100.12:8443", moment); err != nil {
		t.Errorf("a client does not reach the public address: %v", err)
	}
	check(t, l.Close())

	for d, want := range map[*daemon]string{
		c.m:       "tcp 10.77.0.1:8442",
		c.sats[0]: "tcp 10.77.0.11:8444 tcp 10.78.0.11:8444",
		c.sats[1]: "tcp 10.77.0.12:8444 tcp 10.78.0.12:8444",
	} {
		var got string
		c.until("the ports of "+d.name, func() bool {
			got = strings.Join(slices.Sorted(slices.Values(d.listening())), " ")
			return got == want || len(got) > len(want)
		})
		if got != want {
			t.Errorf("%s listens on %s, want %s", d.name, got, want)
		}
	}
	for _, to := range []string{"198.51.100.1:8442", "198.51.100.11:8444", "198.51.100.12:8444"} {
		if err := tries(client, to, moment); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a client at %s: %v, want a refusal by the computer", to, err)
		}
	}
	// Those who are meant to come do.
	for _, x := range []struct{ from, to string }{{c.sats[0].space, "10.77.0.1:8442"}, {c.m.space, "10.77.0.1:8442"},
		{c.sats[1].space, "10.77.0.11:8444"}, {c.sats[1].space, "10.78.0.11:8444"}} {
		if err := tries(x.from, x.to, moment); err != nil {
			t.Errorf("%s at %s: %v", x.from, x.to, err)
		}
	}
	for _, route := range []string{"10.77.0.1 via 198.51.100.1", "10.77.0.11 via 198.51.100.11", "10.78.0.11 via 198.51.100.11"} {
		c.ip("-n " + client + " route add " + route)
	}
	for _, to := range []string{"10.77.0.1:8442", "10.77.0.11:8444", "10.78.0.11:8444"} {
		// A program that is slow may let it in first, and says nothing to strangers
		// for longer than this.
		if err := tries(client, to, wire.HandshakeTimeout/2); err == nil {
			t.Errorf("a client who sends packets for %s to that computer gets an answer", to)
		}
	}
	for _, d := range []*daemon{c.m, c.sats[0]} {
		c.until("the log of "+d.name, func() bool { return strings.Contains(d.log.String(), `"interface":"pub0"`) })
	}
}

// computer puts a daemon on a computer of its own that is in these networks.
func (c *chaosCluster) computer(d *daemon, name string, number int, nics ...string) *daemon {
	c.t.Helper()
	d.space = c.prefix + name
	c.ip("netns add " + d.space)
	c.ip("-n " + d.space + " link set lo up")
	for _, n := range lans {
		for _, nic := range nics {
			if nic != n.nic {
				continue
			}
			bridge, port := "br0", fmt.Sprintf("%s-%s", name, nic)
			if nic != lans[0].nic {
				bridge = "br-" + nic
			}
			c.ip(fmt.Sprintf("-n %ssw link add name %s type veth peer name %s netns %s", c.prefix, port, nic, d.space))
			c.ip(fmt.Sprintf("-n %ssw link set %s master %s up", c.prefix, port, bridge))
			c.ip(fmt.Sprintf("-n %s addr add %s%d/24 dev %s", d.space, n.prefix, number, nic))
			c.ip(fmt.Sprintf("-n %s link set %s up", d.space, nic))
		}
	}
	d.enter = []string{"nsenter", "--net=/run/netns/" + d.space}
	d.ip = fmt.Sprintf("%s%d", lans[0].prefix, number)
	return d
}

// moment is enough to see that a connection stays.
const moment = 300 * time.Millisecond

// tries tells whether a connection from a name space comes about and stays for a
// while.
func tries(space, address string, stays time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := dialFrom(ctx, space, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(stays))
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return nil // it waits for us to speak
	}
	return err
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
