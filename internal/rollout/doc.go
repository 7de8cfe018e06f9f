// Package rollout turns a plan, tallies and time into stage and campaign
// transitions.
package rollout
