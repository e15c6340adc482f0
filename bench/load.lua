-- wrk sends the requests of a file, one after the other, each thread from another place on, and prints one line.
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function init(args)
  local body = string.rep("x", tonumber(args[2]))
  at, ready = id * 1009, {}
  for line in io.lines(args[1]) do
    local method, path = line:match("(%S+) (%S+)")
    ready[#ready + 1] = wrk.format(method, path, {}, method == "PUT" and body or nil)
  end
end
function request() at = at + 1; return ready[at % #ready + 1] end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
