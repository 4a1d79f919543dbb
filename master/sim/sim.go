// Package sim lets thousands of histories of a whole cluster happen in fake
// time: users, administrators, guests, and faults that a seed draws, around the
// master's real rules and whatever satellite is handed in.
//
// Everything runs on one goroutine after another and nothing asks a clock, so a
// seed is a history: the same seed gives the same trace. What is checked is what
// the desktops did, never what the master believes.
package sim
