package cluster

import (
	"fmt"

	"verdecmd/master/placement"
)

// asked is what a server holds on others by having asked for it, until it is
// claimed or given up.
type asked struct {
	places int
	memory uint64
}

// fewPlaces may be asked for by every server, however small the cluster is.
const fewPlaces = 16

func (r *Reservation) cost() uint64 { return r.Need.Memory + placement.Overhead }

// ask counts a reservation that a server has asked for.
func (c *Cluster) ask(r *Reservation) {
	if r.From != 0 && r.From != r.Server {
		a := c.asked[r.From]
		c.asked[r.From] = asked{a.places + 1, a.memory + r.cost()}
	}
}

// answered undoes ask: the reservation was claimed or given up.
func (c *Cluster) answered(r *Reservation) {
	if r.From == 0 || r.From == r.Server {
		return
	}
	a := c.asked[r.From]
	if a.places == 1 {
		delete(c.asked, r.From)
		return
	}
	c.asked[r.From] = asked{a.places - 1, a.memory - r.cost()}
}

// greedy refuses a login through a server that holds half of the cluster's
// memory by places which nobody has taken: a satellite that asks in a loop must
// leave something for the others. What it asks for itself is not counted, for
// that only it can lose.
func (c *Cluster) greedy(l Login, server uint64) error {
	a := c.asked[l.From]
	if l.From == server || a.places < fewPlaces {
		return nil
	}
	var all uint64
	for _, s := range c.servers {
		if s.Attachment != 0 {
			all += s.Load.MemoryTotal
		}
	}
	if a.memory+l.Need.Memory+placement.Overhead <= all/2 {
		return nil
	}
	name := ""
	if s := c.servers[l.From]; s != nil {
		name = s.Name
	}
	return &RefusedError{User: l.User, Need: l.Need, Servers: c.slots.Len(), Asker: fmt.Sprintf("server %d (%s) has asked for %d places on other servers that nobody has taken yet, half of the cluster's memory; "+
		"they are free again within %d s, or at once by \"cancelreservation all\"; \"reservations\" shows them", l.From, name, a.places, seconds(c.limits.ReservationTimeout))}
}
