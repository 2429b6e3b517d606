-- Records by their other times: lists by creation and by their own second, and what ends when.

create index users_created_at on users (created_at, user_id, "timestamp") where deleted_at is null;
create index users_timestamp on users ("timestamp", user_id) where deleted_at is null;
create index users_expires_at on users (expires_at) where deleted_at is null and expires_at is not null;
