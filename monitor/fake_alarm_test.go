package monitor

import (
	"context"
	"slices"
	"time"
)

// active counts the active alarms, which are all critical and not acknowledged.
func (f *fakeMaster) active() (n int) {
	for i := range f.alarms {
		n += b2i(f.alarms[i].Active())
	}
	return n
}

func (f *fakeMaster) Alarms(all bool) ([]Alarm, int, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Alarm
	for _, a := range slices.Backward(f.alarms) {
		if all || a.Active() {
			out = append(out, a)
		}
	}
	return out, f.waiting, f.seq()
}

func (f *fakeMaster) alarm(id uint64) *Alarm {
	for i := range f.alarms {
		if f.alarms[i].ID == id {
			return &f.alarms[i]
		}
	}
	return nil
}

func (f *fakeMaster) Alarm(id uint64) (Alarm, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.alarm(id); a != nil {
		return *a, true
	}
	return Alarm{}, false
}

func (f *fakeMaster) AckAlarm(ctx context.Context, id uint64, note string) (n int, err error) {
	c, _ := CallerOf(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.alarms {
		a := &f.alarms[i]
		if (id == 0 || a.ID == id) && a.Active() && (a.Acked.IsZero() || id != 0 && note != "" && note != a.Note) {
			a.Acked, a.AckedBy, a.Note = fakeStart.Add(2*time.Minute), c.Name, note
			n++
		}
	}
	return n, nil
}

func (f *fakeMaster) ClearAlarm(ctx context.Context, id uint64) (bool, error) {
	c, _ := CallerOf(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.alarm(id)
	if a == nil || !a.Active() {
		return false, nil
	}
	a.Cleared, a.ClearedBy = fakeStart.Add(2*time.Minute), c.Name
	return true, nil
}

// audit is Config.Audit.
func (f *fakeMaster) audit(a Audited) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.ID = uint64(len(f.audited) + 1)
	f.audited = append(f.audited, a)
}

func (f *fakeMaster) Audit(_ context.Context, q AuditFilter) ([]Audited, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Audited
	for i := range f.audited {
		if q.Matches(&f.audited[i], time.Now()) {
			out = append(out, f.audited[i])
		}
	}
	return out[max(0, len(out)-q.Count):], nil
}
