-- Record that a user types or stopped, and announce each start and each stop exactly once.
--
-- KEYS[1]  who types in the project: a sorted set, scored by when their typing expires (ms)
-- ARGV[1]  'start', 'stop' or 'sweep'
-- ARGV[2]  the shard's signals, a stream of the same slot
-- ARGV[3]  how many signals are kept; ARGV[4] for how long, in milliseconds
-- ARGV[5]  project
-- ARGV[6]  time now, in the format of events
-- ARGV[7]  user ('sweep': not used)
-- ARGV[8]  how long typing lasts without a renewal, in milliseconds
-- ARGV[9]  a key of the same slot that limits the user to one start in ARGV[10] milliseconds
--
-- Also ends typing that has expired. Returns the milliseconds until the next expiry; -1: nobody
-- types.

local key, op, signals = KEYS[1], ARGV[1], ARGV[2]
local kept, kept_ms, project, at = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local user, lasts_ms = ARGV[7], ARGV[8]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function announce(event, who)
  local data = '{"projectId":"' .. project .. '","userId":' .. cjson.encode(who)
    .. ',"content":{},"timestamp":"' .. at .. '"}'
  redis.call('XADD', signals, 'MAXLEN', '~', kept, '*', 'project', project, 'event', event,
             'data', data)
  redis.call('PEXPIRE', signals, kept_ms)
end

for _, who in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now_ms)) do
  redis.call('ZREM', key, who)
  announce('typing.stop', who)
end
if op == 'start' then
  local is_new = not redis.call('ZSCORE', key, user)
  if not is_new or redis.call('SET', ARGV[9], 1, 'NX', 'PX', ARGV[10]) then
    redis.call('ZADD', key, string.format('%.0f', now_ms + lasts_ms), user)
    redis.call('PEXPIRE', key, lasts_ms * 10)
    if is_new then
      announce('typing.start', user)
    end
  end
elseif op == 'stop' then
  if redis.call('ZREM', key, user) == 1 then
    announce('typing.stop', user)
  end
end
local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
if first[2] then
  return math.max(0, tonumber(first[2]) - now_ms)
end
return -1
