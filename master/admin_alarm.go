package master

import (
	"context"
	"strconv"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
)

// The alarms and the audit, as the commands see them.

func (b backend) Alarms(all bool) ([]monitor.Alarm, int, uint64) {
	seq := b.m.events.Seq()
	return b.m.alarm.List(all), b.m.alarm.Waiting(), seq
}

func (b backend) Alarm(id uint64) (monitor.Alarm, bool) { return b.m.alarm.Get(id) }

func (b backend) AckAlarm(ctx context.Context, id uint64, note string) (int, error) {
	n, err := b.m.alarm.Ack(ctx, id, caller(ctx), note)
	return n, refusal(err)
}

func (b backend) ClearAlarm(ctx context.Context, id uint64) (bool, error) {
	cleared, err := b.m.alarm.Clear(ctx, id, caller(ctx))
	return cleared, refusal(err)
}

func (b backend) Audit(ctx context.Context, f monitor.AuditFilter) ([]monitor.Audited, error) {
	return b.m.audit.List(ctx, f)
}

// exists tells what alarms may be about, see alarm.Manager.Settle.
func exists(c *cluster.Cluster) func(of, object string) bool {
	servers := map[string]bool{}
	for _, s := range c.Servers() {
		servers[strconv.FormatUint(s.ID, 10)] = true
	}
	return func(of, object string) bool {
		if of == "server" {
			return servers[object]
		}
		return c.Session(object) != nil
	}
}

// caller is who gives a command, by name.
func caller(ctx context.Context) string {
	if c, ok := monitor.CallerOf(ctx); ok {
		return c.Name
	}
	return "the master"
}
