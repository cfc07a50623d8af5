mod cloud;
mod support;
