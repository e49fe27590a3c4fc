-- Renew a process's sign of life in one shard, and return which processes have died.
--
-- KEYS[1]  a hash of the shard: process -> until when it counts as alive (ms)
-- ARGV[1]  the process
-- ARGV[2]  for how long it counts as alive without a renewal, in milliseconds
--
-- Returns {known, process, ...}: known is 1 when the process counted as alive until now, then the
-- processes that expired within the last minute. Those that expired earlier are deleted.

local key, process, lasts_ms = KEYS[1], ARGV[1], ARGV[2]
local REMEMBERED_MS = 60000
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local reply = {0}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local left_ms = tonumber(fields[i + 1]) - now_ms
  if fields[i] == process then
    reply[1] = left_ms > 0 and 1 or 0
  elseif left_ms <= -REMEMBERED_MS then
    redis.call('HDEL', key, fields[i])
  elseif left_ms <= 0 then
    reply[#reply + 1] = fields[i]
  end
end
redis.call('HSET', key, process, string.format('%.0f', now_ms + lasts_ms))
redis.call('PEXPIRE', key, lasts_ms + REMEMBERED_MS)
return reply
