-- Plays requests made beforehand, each once and in order, from the file named by the first argument:
-- records of "<length>\n<raw HTTP request>".
local requests, at = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local length = file:read("*l")
  while length do
    requests[#requests + 1] = file:read(tonumber(length))
    length = file:read("*l")
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency, all)
  io.write(string.format(
    "RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
      + summary.errors.status, latency:percentile(50), latency:percentile(99)))
end
