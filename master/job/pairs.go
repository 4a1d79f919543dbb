package job

import (
	"encoding/json"
	"fmt"
	"time"

	"verdecmd/monitor"
)

// value is a pair on the disk. JSON alone would forget which of the types
// that monitor.Pair knows a value has, and round large numbers.
type value struct {
	Key  string
	Type string `json:",omitempty"`
	Text json.RawMessage
}

// MarshalJSON keeps the types of the pairs.
func (o Outcome) MarshalJSON() ([]byte, error) {
	x := outcome{Code: o.Code, Text: o.Text}
	for _, p := range o.Pairs {
		v, ok := p.Value, true
		var typ string
		switch t := v.(type) {
		case nil:
		case string:
			typ = "string"
		case bool:
			typ = "bool"
		case int:
			typ = "int"
		case int64:
			typ = "int64"
		case uint64:
			typ = "uint64"
		case float64:
			typ = "float64"
		case time.Time:
			typ = "time"
		case time.Duration:
			typ, v = "duration", int64(t)
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("pair %q has a %T, which no encoder knows", p.Key, p.Value)
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("pair %q: %w", p.Key, err)
		}
		x.Pairs = append(x.Pairs, value{p.Key, typ, b})
	}
	return json.Marshal(x)
}

// UnmarshalJSON is the opposite of MarshalJSON.
func (o *Outcome) UnmarshalJSON(b []byte) error {
	var x outcome
	if err := json.Unmarshal(b, &x); err != nil {
		return err
	}
	*o = Outcome{Code: x.Code, Text: x.Text}
	for _, v := range x.Pairs {
		got, err := v.decode()
		if err != nil {
			return fmt.Errorf("pair %q: %w", v.Key, err)
		}
		o.Pairs = append(o.Pairs, monitor.Pair{Key: v.Key, Value: got})
	}
	return nil
}

type outcome struct {
	Code  int
	Pairs []value `json:",omitempty"`
	Text  string  `json:",omitempty"`
}

func (v value) decode() (any, error) {
	switch v.Type {
	case "":
		return nil, nil
	case "string":
		return decode[string](v.Text)
	case "bool":
		return decode[bool](v.Text)
	case "int":
		return decode[int](v.Text)
	case "int64":
		return decode[int64](v.Text)
	case "uint64":
		return decode[uint64](v.Text)
	case "float64":
		return decode[float64](v.Text)
	case "time":
		return decode[time.Time](v.Text)
	case "duration":
		return decode[time.Duration](v.Text)
	}
	return nil, fmt.Errorf("type %q is not known", v.Type)
}

func decode[T any](b []byte) (any, error) {
	var x T
	err := json.Unmarshal(b, &x)
	return x, err
}
